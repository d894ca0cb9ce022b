# Everything runs in .venv, which is made when it is missing or its pins changed.
PYTHON ?= $(shell for p in python3.12 python3.11 python3; do \
	$$p -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 12))' \
	2>/dev/null && echo $$p && break; done)
VENV := .venv
READY := $(VENV)/.ready
BIN := $(VENV)/bin

.PHONY: demo test faults bench bench-akida setup lint docs clean

setup: $(READY)

$(READY): pyproject.toml constraints.txt
	@test -n "$(PYTHON)" || { echo "Python 3.11 or 3.12 is needed; install it or set PYTHON=..."; exit 1; }
	$(PYTHON) -m venv $(VENV)
	PIP_CONSTRAINT=constraints.txt $(BIN)/python -m pip install --quiet --disable-pip-version-check \
		-c constraints.txt -e '.[dev]'
	touch $@

demo: $(READY)
	$(BIN)/fedqana simulate --data synthetic:600 --sites source --network small --rounds 10 \
		--qat-rounds 3 --local-epochs 6 --batch 16 --new-class bcc@4@polarized --seed 1 --out demo-out

# The tables of docs/benchmarks.md; some days on 2 cores. What is there is not made again, and a stopped
# run goes on. DATA is HAM10000, with its lesion masks.
ACCURACY = $(BIN)/fedqana bench accuracy
OUT := fedqana-bench
SOURCES := rosendahl vidir_modern vidir_molemax vienna_dias
LAYOUTS := source dirichlet:10:0.1 dirichlet:10:0.3 dirichlet:10:1 iid:10 \
	dirichlet:50:0.1 dirichlet:50:0.3 dirichlet:50:1 iid:50
STRATEGIES := fedavg fedprox fedadam fedyogi fedmedian fedtrimmedavg krum
# An OUT of an earlier version has other defaults' runs by these names: take a new one.
# Defaults of before: a phase ended with its last network, without offsets of the classes; then sites
# counted by classes; at first quantized rounds learned labels.
CASES := --average 0 --no-class-offsets --fine-tuning-epochs 0
CLASSES := --site-weights classes --no-class-offsets --fine-tuning-epochs 0
LABELS := $(CASES) --qat-rounds 8 --distillation 0 --qat-learning-rate 1e-4
# Three seeds of a federated run: its name and its options.
define federated
	for seed in 0 1 2; do \
		run=$(1)-$$seed; \
		if test -d $(OUT)/federated/$$run; then \
			$(BIN)/fedqana simulate --resume $$run --out $(OUT)/federated || exit 1; \
		else \
			$(BIN)/fedqana simulate --data $(DATA) --arrivals 0 --deploy-every 12 --seed $$seed $(2) \
				--run $$run --out $(OUT)/federated || exit 1; \
		fi; done
endef
bench: $(READY)
	@test -n "$(DATA)" || { echo "say where HAM10000 is: make bench DATA=DIR"; exit 1; }
	for row in pooled test-flips; do \
		$(ACCURACY) run $$row --data $(DATA) --out $(OUT)/accuracy || exit 1; done
	$(ACCURACY) run resnet18 --data $(DATA) --bfloat16 --epochs 24 --out $(OUT)/accuracy
	for site in $(SOURCES); do \
		$(ACCURACY) run alone --site $$site --data $(DATA) --out $(OUT)/accuracy || exit 1; done
	for row in pooled test-flips; do \
		$(ACCURACY) run $$row --initial pretrained --data $(DATA) --out $(OUT)/pretrained || exit 1; done
	for site in $(SOURCES); do \
		$(ACCURACY) run alone --site $$site --initial pretrained --data $(DATA) \
			--out $(OUT)/pretrained || exit 1; done
	for row in pooled no-attention no-se no-residual plain-convolutions no-logit-adjustment smote \
		smote-and-logit-adjustment crop-whole crop-saliency crop-grad-cam crop-mask mixup \
		no-augmentation leaky; do \
		$(ACCURACY) run $$row --data $(DATA) --epochs 24 --out $(OUT)/ablations || exit 1; done
	for row in leaky pooled; do \
		$(ACCURACY) run $$row --data $(DATA) --epochs 96 --seed 0 --out $(OUT)/leaky || exit 1; done
	$(call federated,federated,)
	for part in test validation; do \
		$(ACCURACY) deployed federated-0 federated-1 federated-2 --runs-out $(OUT)/federated \
			--on $$part --out $(OUT)/deployed-$$part || exit 1; done
	$(call federated,classes,$(CLASSES))
	$(call federated,cases,$(CASES))
	$(call federated,labels,$(LABELS))
	$(call federated,random,--initial random $(LABELS))
	$(call federated,quantization,--compression quantization --fine-tuning-epochs 0)
	$(BENCH) strategies run --data $(DATA) $(addprefix --sites ,$(LAYOUTS)) \
		$(addprefix --strategy ,$(STRATEGIES)) --seed 0 --seed 1 --seed 2 \
		--network small --rounds 24 --qat-rounds 6 --out $(OUT)/strategies
	$(BENCH) strategies run --data $(DATA) --sites source \
		$(addprefix --strategy ,$(STRATEGIES)) --seed 0 --seed 1 \
		--network small --rounds 24 --qat-rounds 6 $(CLASSES) --out $(OUT)/small
	$(BENCH) strategies run --data $(DATA) --sites source --seed 0 --seed 1 \
		--network small --rounds 24 --qat-rounds 6 $(CLASSES) --compression quantization \
		--out $(OUT)/small-quantization
	$(ACCURACY) table $(OUT)/accuracy
	$(ACCURACY) table $(OUT)/leaky
	$(ACCURACY) table $(OUT)/ablations
	$(ACCURACY) table $(OUT)/pretrained
	$(ACCURACY) table $(OUT)/deployed-test
	$(ACCURACY) table $(OUT)/deployed-validation
	for name in federated classes cases labels random quantization; do \
		$(BIN)/fedqana runs compare --spread $$name-0 $$name-1 $$name-2 --out $(OUT)/federated || exit 1; done
	$(BENCH) strategies table $(OUT)/strategies --figure $(OUT)/strategies.svg
	$(BENCH) strategies table $(OUT)/small
	$(BENCH) strategies table $(OUT)/small-quantization

# The tables of docs/conversion.md and docs/on-chip-learning.md; some five hours on 2 cores. DATA is HAM10000.
BENCH = $(BIN)/fedqana bench
bench-akida: $(READY)
	@test -n "$(DATA)" || { echo "say where HAM10000 is: make bench-akida DATA=DIR"; exit 1; }
	$(BENCH) train --data $(DATA)
	for penalty in 0 0.3 1 3; do \
		$(BENCH) train --data $(DATA) --distillation 0 --event-penalty $$penalty || exit 1; done
	for how in "--spike-band 30" "--decorrelation 1" "--shape half-width-early"; do \
		$(BENCH) train --data $(DATA) $$how || exit 1; done
	for code in vasc df bcc akiec; do \
		$(BENCH) train --data $(DATA) --hold-out $$code --float-epochs 12 --qat-epochs 6 || exit 1; done
	for shape in default late-strides half-width three-stages; do \
		$(BENCH) train --data $(DATA) --out fedqana-bench/shapes --seed 0 --shape $$shape \
			--distillation 0 --float-epochs 16 --qat-epochs 6 || exit 1; done
	for what in conversion "conversion --distillation 0" wear; do \
		$(BENCH) $$what --data $(DATA) || exit 1; done
	for how in "" "--spike-band 30" "--decorrelation 1"; do \
		$(BENCH) heads --data $(DATA) --draws 3 $$how || exit 1; done
	$(BENCH) sparsity --data $(DATA) --distillation 0 --figure fedqana-bench/events.svg
	$(BENCH) new-class --data $(DATA)
	$(BENCH) shapes --data $(DATA) --shape default --shape half-width-early
	$(BENCH) shapes --data $(DATA) --out fedqana-bench/shapes --seed 0 --distillation 0 \
		--shape default --shape late-strides --shape half-width --shape three-stages

test: $(READY) lint
	$(BIN)/python -m pytest

# What goes wrong with a server and three hospitals as real processes; some 40 minutes.
faults: $(READY)
	$(BIN)/python -m pytest -m faults -n 0 -v tests/deployment

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

docs: $(READY)
	$(BIN)/python docs/make_command_pages.py

clean:
	rm -rf $(VENV) demo-out fedqana-out build *.egg-info
