"""One file a kind of client: how its requests are read, and what it is answered. All go through `service.Service.answer`."""
