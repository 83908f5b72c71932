"""Where files lie: on a shared folder or on S3."""
