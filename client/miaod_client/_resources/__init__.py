"""The API's resources; each is an attribute of `Client`."""
