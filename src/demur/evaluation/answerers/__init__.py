"""What can be evaluated: a model that runs here, a server, or files of responses."""
