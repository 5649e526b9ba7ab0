"""The door: python train_gan.py --disc p4"""

import sys

from eqgan.__main__ import main

if __name__ == "__main__":
    main(["train", *sys.argv[1:]])
