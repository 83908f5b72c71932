"""Create the named buckets that do not exist yet on the server at $AWS_ENDPOINT_URL: python buckets.py winnow mlflow."""

import sys

import boto3


def main(names: list[str]) -> None:
    client = boto3.client("s3")
    existing = {bucket["Name"] for bucket in client.list_buckets()["Buckets"]}
    for name in names:
        if name not in existing:
            client.create_bucket(Bucket=name)
        print(f"{name}: {'exists already' if name in existing else 'created'}")


if __name__ == "__main__":
    main(sys.argv[1:])
