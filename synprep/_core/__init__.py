"""How it is done; the modules beside this folder say what is done."""
