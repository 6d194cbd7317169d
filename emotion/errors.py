"""The one exception for anything a user can mend: the message says what is wrong and what to do."""


class UserError(ValueError):
    """Bad input, file or option. Command lines print it and exit with 2, the page shows it."""
