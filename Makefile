# Two commands for users: `make demo` and `make test`. Both create what they need in .venv.
PYTHON ?= python3
VENV ?= .venv
LOWEST ?= .venv-lowest
BIN := $(VENV)/bin

.PHONY: demo test test-long test-gpu test-lowest test-wheel torture mutants coverage check bench bench-gpu docs zoo goldens vsix studio-page playground clean

$(VENV)/.installed: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "nasdsl needs Python 3.11 or newer; set PYTHON=…"; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	touch $@

# A tour: cost, diagram and stand-alone PyTorch file of the published decoder; a training of a minute on synthetic shapes; a
# search of three minutes, its report, and a diagram of the best decoder.
demo: $(VENV)/.installed
	mkdir -p demo
	$(BIN)/nasdsl check genotypes/*.nas
	$(BIN)/nasdsl compile genotypes/nas_fcos.nas -o demo/nas_fcos.py
	$(BIN)/nasdsl render genotypes/nas_fcos.nas -o demo/nas_fcos.svg
	$(BIN)/python demo/nas_fcos.py
	$(BIN)/nasdsl train zoo:fcos --improvements --method reference_size=none --width 64 --backbone tiny --data shapes \
		--recipe quick --size 144x192 --epochs 6 --learning-rate 0.002 --out demo/run --resume
	$(BIN)/nasdsl detect demo/run --data shapes --first 12 --no-pictures --sheet -o demo
	$(BIN)/nasdsl search zoo:nas_fcos_fpn --data shapes --backbone tiny --backbone-weights demo/run --width 32 \
		--method reference_size=none --proxy-size 96 --proxy-batch 8 --proxy-learning-rate 0.004 --iterations 40 \
		--trials 30 --workers process:2 --out demo/search --resume
	$(BIN)/nasdsl report demo/search -o demo/report.html
	$(BIN)/nasdsl render demo/search/best.nas -o demo/found.svg
	@echo "\nIn demo/: nas_fcos.svg and nas_fcos.py, the paper's decoder; sheet.png, detections; found.svg, the best decoder of"
	@echo "the search; report.html, the report of the search, for any browser."

# Format, lint, types, imports, tests. The aim is ten minutes on two cores; they take nine.
test: check
	$(BIN)/python -m pytest -n auto --dist worksteal

# The tests that take longest: distributed and killed trainings, exports of large decoders, interpreted kernels.
test-long: $(VENV)/.installed
	$(BIN)/python -m pytest -n auto --dist worksteal -m long

# The tests that need a GPU with CUDA, those that take long among them. `make test` runs the others of them too where there is one.
test-gpu: $(VENV)/.installed
	@$(BIN)/python -c 'import torch, sys; sys.exit(not torch.cuda.is_available())' || { echo "torch sees no GPU"; exit 1; }
	$(BIN)/python -m pytest -m gpu

# The tests with the lowest versions that pyproject.toml allows, in an environment of its own. ONLY="tests/nn -x" runs these.
# Old versions warn of things that newer ones have mended, so that warnings are no errors here.
test-lowest: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet uv
	$(BIN)/uv venv --quiet --seed --clear --python $(BIN)/python $(LOWEST)
	$(BIN)/uv pip compile --quiet --resolution lowest-direct --python $(LOWEST) --extra onnx --extra onnxruntime \
		--extra openvino --extra ray --extra tensorboard --extra trackio --extra wandb --extra mlflow --extra video --extra supervision \
		--extra timm --extra optuna --extra lsp --extra mcp pyproject.toml --output-file $(LOWEST)/lowest.txt
	$(BIN)/uv pip install --quiet --python $(LOWEST) --requirement $(LOWEST)/lowest.txt
	$(BIN)/uv pip install --quiet --python $(LOWEST) --constraint $(LOWEST)/lowest.txt --editable '.[test]'
	NASDSL_LOWEST=1 $(LOWEST)/bin/python -m pytest -W default $(if $(ONLY),$(ONLY),-n auto --dist worksteal)

# The package as users get it: wheel and sdist built twice, installed in empty environments elsewhere, and tried.
test-wheel: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet build twine uv
	PATH="$(abspath $(BIN)):$$PATH" $(BIN)/python tests/packaging/try_wheel.py

# Hours of fuzzing, comparing and killing, which may be stopped and go on with the cases that are left; docs/reliability.md has
# what came of it. ONLY="fuzz differential" runs these subjects; MINUTES=10 ends each after this time; CASES=17 runs this case again.
torture: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet --editable '.[fuzz]' || echo "atheris is not there: the subject guided has nothing to do"
	PYTHONPATH="tests:$$PYTHONPATH" $(BIN)/python -m torture $(ONLY) $(if $(MINUTES),--minutes $(MINUTES)) \
		$(foreach case,$(CASES),--case $(case))

# Lines and branches of the package that the tests run, in the commands and workers that they start too: build/coverage, and
# docs/reliability.md. It takes much longer than the tests alone. LONG=1 runs the long tests as well; ONLY="tests/nn" runs these,
# and leaves the page as it is.
coverage: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet coverage
	rm -rf build/coverage && mkdir -p build/coverage
	$(BIN)/python -m coverage run -m pytest $(if $(LONG),-m "long or not long") $(or $(ONLY),-n auto --dist worksteal)
	$(BIN)/python -m coverage combine --quiet
	$(BIN)/python -m coverage json --quiet -o build/coverage/coverage.json
	$(BIN)/python -m coverage html --quiet -d build/coverage/html
	$(BIN)/python -m coverage report --skip-covered --sort=miss
	$(if $(ONLY),,PYTHONPATH="tests:$$PYTHONPATH" $(BIN)/python -m torture.coverage build/coverage/coverage.json \
		"make test$(if $(LONG), and make test-long)")

# Mutants of the sources, which tests are to notice; docs/reliability.md has what came of it. It may be stopped, and goes on.
# ONLY="layers journal" runs these groups, COUNT=20 so many mutants of each, MINUTES=10 ends each after this time.
mutants: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet --editable '.[mutants]'
	PYTHONPATH="tests:$$PYTHONPATH" OMP_NUM_THREADS=1 $(BIN)/python -m torture.mutation $(ONLY) $(if $(COUNT),--count $(COUNT)) \
		$(if $(MINUTES),--minutes $(MINUTES))

# The static part.
check: $(VENV)/.installed
	$(BIN)/ruff format --check
	$(BIN)/ruff check
	$(BIN)/mypy
	$(BIN)/lint-imports

# Side-by-side measurements: benchmarks/results.md. ONLY="deform coco" measures these alone. Needs a machine to itself.
bench: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet fvcore ptflops
	$(BIN)/python benchmarks/run.py $(if $(ONLY),--only $(ONLY))

# What a GPU does with it, in six minutes: tables, and gpu.json. It needs the source tree and torch's packages, and installs nothing.
bench-gpu:
	$(if $(wildcard $(BIN)/python),$(BIN)/python,$(PYTHON)) benchmarks/gpu.py

# The documentation site, in site/; `python -m http.server -d site` shows it. Anything that is not in order is an error.
docs: $(VENV)/.installed
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build

# The page and diagrams of the zoo.
zoo: $(VENV)/.installed
	$(BIN)/python -m nasdsl.report.zoo docs

# Regenerate the expected diagnostics and diagrams; review the differences before committing them.
goldens: $(VENV)/.installed
	NASDSL_UPDATE_GOLDENS=1 $(BIN)/python -m pytest -q tests/diagnostics tests/backends/diagrams

# The extension for Visual Studio Code, editors/vscode/nasdsl.vsix: its grammar tested, bundled and packaged. Needs node and npm.
vsix:
	cd editors/vscode && npm ci --no-audit --no-fund && npm test && cp ../../LICENSE . && npm run package

# The page of `nasdsl studio`, nasdsl/studio/page, which is committed so that installing needs no node. Needs node and npm.
studio-page: editors/studio/node_modules
	cd editors/studio && npm run build

# The playground, docs/playground: static files, of which nothing is loaded from elsewhere. Needs node, npm and the registries.
playground: $(VENV)/.installed editors/studio/node_modules
	cd editors/studio && PYTHON="$(abspath $(BIN))/python" npm run playground

editors/studio/node_modules: editors/studio/package-lock.json
	cd editors/studio && npm ci --no-audit --no-fund
	touch $@

clean:
	rm -rf $(VENV) $(LOWEST) demo site dist build docs/playground editors/studio/node_modules
	rm -rf .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
