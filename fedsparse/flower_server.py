"""The ServerApp, as Flower loads it.

Flower's simulation loads the ServerApp and the ClientApp in two threads. In a checkout, a thread does not find
``fedsparse.strategies`` while another one is in the first lines of ``fedsparse``. ``import fedsparse`` waits for them.
"""

import fedsparse  # noqa: F401
from fedsparse.strategies.server_app import app

__all__ = ["app"]
