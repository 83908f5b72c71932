"""What has happened to the trials of a sweep, and which driver may write it down."""
