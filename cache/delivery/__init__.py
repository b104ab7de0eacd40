"""Changes to Redis: what waits, in which order it is sent, and the scripts that decide about it. Imports the root of
``cache`` alone."""
