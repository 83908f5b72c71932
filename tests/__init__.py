"""Tests mirror the folders; contracts/ runs on every plug-in that is found."""
