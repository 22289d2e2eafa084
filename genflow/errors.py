"""The one exception that the command line shows as a sentence instead of a traceback."""


class UserError(Exception):
    """Bad input: the message names the field, file or flag, what was found, and the remedy, in at most three lines."""
