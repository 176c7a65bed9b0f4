"""From a configuration to what training needs; from a run folder to what captioning needs."""
