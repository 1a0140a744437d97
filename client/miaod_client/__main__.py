"""`python -m miaod_client` is the same as `miaod`."""

from miaod_client._cli.main import main

main()
