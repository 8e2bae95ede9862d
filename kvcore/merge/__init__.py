"""Many fragments as one."""
