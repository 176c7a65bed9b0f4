"""Programs that run inside another environment or process and write down when things happened."""
