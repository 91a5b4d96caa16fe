PYTHON ?= python3
BIN := .venv/bin
NOTEBOOKS := inspect_raw cutout_histogram intensity_histogram section_variation preprocess extract inspect merge fingerprint
INSTALLED := .venv/installed

.PHONY: demo test format notebooks clean

## demo: install, and run every notebook on the demonstration data
demo: $(INSTALLED)
	@mkdir -p out
	@$(call papermill,inspect_raw,demo)
	@$(call papermill,cutout_histogram,demo)
	@$(call papermill,intensity_histogram,demo)
	@$(call papermill,section_variation,demo)
	@$(call papermill,preprocess,demo)
	@$(call papermill,inspect,demo)
	@$(call papermill,preprocess,ds1)
	@$(call papermill,preprocess,ds2)
	@$(call papermill,merge,merge)
	@$(call papermill,fingerprint,merge)
	@$(call papermill,extract,volumes)
	@$(call papermill,preprocess,volumes)
	@echo
	@echo "All notebooks ran. Look at:"
	@echo "  out/*.ipynb             the executed notebooks; open them with $(BIN)/jupyter lab out"
	@echo "  data/demo/reports/      figures and numbers of the exploratory notebooks"
	@echo "  data/demo/processed/    tensors, meta.csv and sections.csv"
	@echo "  data/merged/meta.csv    two small data sets merged into one table"
	@echo "  data/volumes/processed/ the same small data sets, cut from volumes"
	@echo "  data/merged/reports/augmenter.yaml   what to configure training with"
	@echo "Next: copy params/ds1.yaml, put your own folders into it, and pass it with -f."

# What papermill says is shown only if it fails.
papermill = echo "papermill notebooks/$(1).ipynb out/$(1)_$(2).ipynb -f params/$(2).yaml"; \
	$(BIN)/papermill --no-progress-bar notebooks/$(1).ipynb out/$(1)_$(2).ipynb -f params/$(2).yaml \
	2> out/papermill.log || { cat out/papermill.log; exit 1; }

## test: install, check the style, and run all tests
test: $(INSTALLED)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/python -m pytest -n 3

## format: rewrite code and notebooks in the project's style
format: $(INSTALLED)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

## notebooks: run the notebooks in place, and take the pictures of the docs from them
notebooks: $(INSTALLED)
	$(BIN)/jupyter nbconvert --to notebook --execute --inplace \
	  --ExecutePreprocessor.record_timing=False --ExecutePreprocessor.store_widget_state=False \
	  $(NOTEBOOKS:%=notebooks/%.ipynb)
	$(BIN)/python docs/make_pictures.py

## clean: remove the environment, demonstration data and what was made of them; other folders in data stay
clean:
	rm -rf .venv out $(addprefix data/,demo ds1 ds2 merged volumes extracted)

$(INSTALLED): requirements.txt pyproject.toml
	@echo "Installing into .venv; this takes a minute or two."
	@$(PYTHON) -m venv .venv
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.txt
	@touch $(INSTALLED)
