"""Make the buckets that are named and not there yet: python buckets.py winnow mlflow. The server is that of $AWS_ENDPOINT_URL."""

import sys

import boto3


def main(names: list[str]) -> None:
    client = boto3.client("s3")
    there = {bucket["Name"] for bucket in client.list_buckets()["Buckets"]}
    for name in names:
        if name not in there:
            client.create_bucket(Bucket=name)
        print(f"{name}: {'was there' if name in there else 'made'}")


if __name__ == "__main__":
    main(sys.argv[1:])
