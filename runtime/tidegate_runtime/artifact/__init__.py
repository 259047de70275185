"""From a source to a loaded model: resolve the files, check them, load them."""
