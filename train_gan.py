"""The door: python train_gan.py --disc p4"""

from eqgan.cli import train_gan

if __name__ == "__main__":
    train_gan()
