"""Shape annotations are checked under pytest only: beartype wraps every annotated function of the package."""

import os

os.environ.setdefault("EQGAN_NO_DOWNLOAD", "1")  # tests never reach for the network
