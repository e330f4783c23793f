"""An exported model behind HTTP, and a page to try it on; nothing else in the project imports it."""
