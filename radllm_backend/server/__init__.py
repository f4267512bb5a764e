"""The same answers over a socket."""
