"""Files of a sweep: in a shared folder or on S3."""
