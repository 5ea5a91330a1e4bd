"""Where sockets are made: the path of one has at most 103 characters on every Unix system."""

import os
import tempfile

from fedsparse.errors import RunFailed

LONGEST = 103
FOLDERS = ("/tmp", "/var/tmp", "/dev/shm")


def socket_folder(rest: int) -> str:
    """The temporary folder or, where its path is too long for sockets, another one.

    Args:
        rest: how many characters the path of a socket has behind the folder's.

    Raises:
        RunFailed: there is no folder with a short path to write in.
    """
    for folder in (own := tempfile.gettempdir(), *FOLDERS):
        if len(os.fsencode(folder)) + rest <= LONGEST and os.access(folder, os.W_OK | os.X_OK):
            return folder
    raise RunFailed(f"TMPDIR = {own}: its path is too long for sockets; {LONGEST - rest} characters are allowed")
