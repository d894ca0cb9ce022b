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
# counted by classes; at first quantized rounds learned labels. All were of the network with all elements.
CASES := --average 0 --no-class-offsets
CLASSES := --site-weights classes --no-class-offsets
LABELS := $(CASES) --qat-rounds 8 --distillation 0 --qat-learning-rate 1e-4
FORMER := --elements all --fine-tuning-epochs 0
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
# Tables of finished runs: of their names, each with the seeds 0 to 2.
define deployed
	for part in test validation; do \
		$(ACCURACY) deployed $(1)-0 $(1)-1 $(1)-2 --runs-out $(OUT)/federated --on $$part \
			--out $(OUT)/$(1)-$$part && $(ACCURACY) table $(OUT)/$(1)-$$part || exit 1; done
	$(BIN)/fedqana runs compare --spread $(1)-0 $(1)-1 $(1)-2 --out $(OUT)/federated
endef
bench: $(READY)
	@test -n "$(DATA)" || { echo "say where HAM10000 is: make bench DATA=DIR"; exit 1; }
	$(call federated,federated,)
	$(call deployed,federated)
	$(call federated,shared,--fine-tuning-epochs 0)
	$(call deployed,shared)
	$(call federated,all-elements,--elements all)
	$(call deployed,all-elements)
	for row in pooled test-flips; do \
		$(ACCURACY) run $$row --initial pretrained --data $(DATA) --out $(OUT)/pretrained || exit 1; done
	for site in $(SOURCES); do for row in alone alone-flips; do \
		$(ACCURACY) run $$row --site $$site --initial pretrained --data $(DATA) \
			--out $(OUT)/pretrained || exit 1; done; done
	$(ACCURACY) table $(OUT)/pretrained
	for row in pooled test-flips all-elements; do \
		$(ACCURACY) run $$row --data $(DATA) --out $(OUT)/random || exit 1; done
	$(ACCURACY) table $(OUT)/random
	for row in resnet18 resnet18-flips; do \
		$(ACCURACY) run $$row --data $(DATA) --bfloat16 --epochs 24 --out $(OUT)/resnet18 || exit 1; done
	$(ACCURACY) table $(OUT)/resnet18
	for row in pooled all-elements no-attention no-se no-residual; do \
		$(ACCURACY) run $$row --data $(DATA) --epochs 24 --out $(OUT)/ablations || exit 1; done
	for row in plain-convolutions no-logit-adjustment smote smote-and-logit-adjustment crop-whole \
		crop-saliency crop-grad-cam crop-mask mixup no-augmentation leaky; do \
		$(ACCURACY) run $$row --elements all --data $(DATA) --epochs 24 \
			--out $(OUT)/ablations || exit 1; done
	$(ACCURACY) table $(OUT)/ablations
	for row in leaky pooled; do \
		$(ACCURACY) run $$row --elements all --data $(DATA) --epochs 96 --seed 0 \
			--out $(OUT)/leaky || exit 1; done
	$(ACCURACY) table $(OUT)/leaky
	$(BENCH) strategies run --data $(DATA) $(addprefix --sites ,$(LAYOUTS)) \
		$(addprefix --strategy ,$(STRATEGIES)) --seed 0 --seed 1 --seed 2 \
		--network small --rounds 24 --qat-rounds 6 --out $(OUT)/strategies
	$(BENCH) strategies table $(OUT)/strategies --figure $(OUT)/strategies.svg
	$(call federated,quantization,$(FORMER) --compression quantization)
	$(call deployed,quantization)
	$(call federated,classes,$(FORMER) $(CLASSES))
	$(call deployed,classes)
	$(call federated,cases,$(FORMER) $(CASES))
	$(call deployed,cases)
	$(call federated,labels,$(FORMER) $(LABELS))
	$(call deployed,labels)
	$(call federated,random,$(FORMER) --initial random $(LABELS))
	$(call deployed,random)
	$(BENCH) strategies run --data $(DATA) --sites source \
		$(addprefix --strategy ,$(STRATEGIES)) --seed 0 --seed 1 \
		--network small --rounds 24 --qat-rounds 6 $(CLASSES) --out $(OUT)/small
	$(BENCH) strategies table $(OUT)/small
	$(BENCH) strategies run --data $(DATA) --sites source --seed 0 --seed 1 \
		--network small --rounds 24 --qat-rounds 6 $(CLASSES) --compression quantization \
		--out $(OUT)/small-quantization
	$(BENCH) strategies table $(OUT)/small-quantization

# The tables of docs/conversion.md and docs/on-chip-learning.md; some five hours on 2 cores. DATA is HAM10000.
BENCH = $(BIN)/fedqana bench
bench-akida: $(READY)
	@test -n "$(DATA)" || { echo "say where HAM10000 is: make bench-akida DATA=DIR"; exit 1; }
	$(BENCH) train --data $(DATA) --shape whole
	for penalty in 0 0.3 1 3; do \
		$(BENCH) train --data $(DATA) --shape whole --distillation 0 --event-penalty $$penalty || exit 1; done
	for how in "--shape whole --spike-band 30" "--shape whole --decorrelation 1" \
		"--shape half-width-early"; do \
		$(BENCH) train --data $(DATA) $$how || exit 1; done
	for code in vasc df bcc akiec; do \
		$(BENCH) train --data $(DATA) --shape whole --hold-out $$code --float-epochs 12 --qat-epochs 6 || exit 1; done
	for shape in whole late-strides half-width three-stages; do \
		$(BENCH) train --data $(DATA) --out fedqana-bench/shapes --seed 0 --shape $$shape \
			--distillation 0 --float-epochs 16 --qat-epochs 6 || exit 1; done
	for what in conversion "conversion --distillation 0" wear; do \
		$(BENCH) $$what --data $(DATA) --shape whole || exit 1; done
	for how in "" "--spike-band 30" "--decorrelation 1"; do \
		$(BENCH) heads --data $(DATA) --shape whole --draws 3 $$how || exit 1; done
	$(BENCH) sparsity --data $(DATA) --shape whole --distillation 0 --figure fedqana-bench/events.svg
	$(BENCH) new-class --data $(DATA) --shape whole
	$(BENCH) shapes --data $(DATA) --shape whole --shape half-width-early
	$(BENCH) shapes --data $(DATA) --out fedqana-bench/shapes --seed 0 --distillation 0 \
		--shape whole --shape late-strides --shape half-width --shape three-stages

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
