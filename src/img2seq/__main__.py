"""`python -m img2seq`."""

from img2seq.cli import main

main()
