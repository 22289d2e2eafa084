"""One file for each experiment; common.py holds every key."""
