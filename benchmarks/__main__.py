"""`python -m benchmarks`: Rowtap compared with the floor, by benchmarks/relay.py and with its arguments."""

from benchmarks.relay import main

main()
