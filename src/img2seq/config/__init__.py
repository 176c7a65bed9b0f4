"""What a run is asked to do: the schema of every field, and the strict reader of YAML files."""
