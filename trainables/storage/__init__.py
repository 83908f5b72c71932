"""The files of a trial: where they are, and how they are written so that a crash leaves them whole or absent."""
