"""What the tests stand on: real servers, and a proxy that breaks the line to them."""
