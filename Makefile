# make demo            everything from a bare checkout, on drawn faces, in minutes
# make test            the tests
# make two_cores DATA=fer2013.csv        recipe 1 on real faces, sized for a CPU; every target is a file in runs/two_cores
# make micro_expnet DATA=fer2013.csv     the same with its source's whole protocol, for a GPU
# make tsnet DATA=fer2013.csv           recipe 2: teacher and student, into runs/tsnet
# make ean DATA=fer2013.csv             recipe 3: EAN, taught by itself and pruned, into runs/ean
# make ean_two_cores DATA=fer2013.csv   the same with fewer epochs
# make dynamic_mbv3 DATA=fer2013.csv    recipe 4: MobileNetV3-Large whose gate chooses a width for each image, and that in INT8
# make prj_hawqc DATA=fer2013.csv       recipe 5's pruning half: MobileNetV2, punished, rewarded and judged
# make tsnet_two_cores, dynamic_mbv3_two_cores, prj_hawqc_two_cores DATA=fer2013.csv   the three in hours on two cores
# make best DATA=fer2013.csv            our own best: a teacher, nano_resnet taught by it, and that in INT8
# make robust tiny DATA=fer2013.csv     the small networks of models/ again, from what is there: INT8 and about 3 bits
# make site            the documentation as a site, into site/
# make check           what CI runs: linters, types, documentation, tests
# make bench           speed and memory of fertool itself (benchmarks/)

PYTHON ?= python3
VENV ?= .venv
OLDEST := .venv-oldest
ARM := .arm-runtime
WEB_RUNTIME := .onnxruntime-web/onnxruntime-web-1.30.0.tgz
BIN := $(VENV)/bin
FERTOOL := $(BIN)/fertool
DATA ?= synth
RUNS ?= runs

# A text as one word for the shell, and for the shell and the inner make.
quoted = '$(subst ','\'',$(1))'
passed = $(call quoted,$(subst $$,$$$$,$(1)))

# Names of targets, which make and the shell would take apart at a blank or one of these signs.
SIGNS := ' " ; & | < > ( ) * ? ` \ % : $$ \# ~ = [ ] { } !
ifneq ($(words $(RUNS)x $(RUN)x)$(strip $(foreach sign,$(SIGNS),$(findstring $(sign),$(RUNS)$(RUN)))),2)
$(error RUNS=$(RUNS) RUN=$(RUN): make takes no blanks and no signs such as * or $$ here; choose another folder)
endif

.DELETE_ON_ERROR:
.PHONY: demo two_cores micro_expnet tsnet ean ean_two_cores dynamic_mbv3 prj_hawqc tsnet_two_cores dynamic_mbv3_two_cores prj_hawqc_two_cores best robust tiny chain install oldest-runtime arm-runtime web-runtime test lint types docs notebooks site results check bench clean
.SECONDARY:

install: $(BIN)/.installed

$(BIN)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev,plots,runtimes]'
	touch $@

demo: install
	@$(MAKE) --no-print-directory chain RUN=$(RUNS)/demo RECIPE=recipes/demo.yaml DATA=synth

two_cores micro_expnet: install
	@$(MAKE) --no-print-directory chain RUN=$(RUNS)/$@ RECIPE=recipes/$@.yaml DATA=$(call passed,$(DATA))

tsnet: install
	@$(MAKE) --no-print-directory chain RUN=$(RUNS)/$@ RECIPE=recipes/$@.yaml DATA=$(call passed,$(DATA)) STAGES="teacher student"

tsnet_two_cores: install
	@$(MAKE) --no-print-directory chain RUN=$(RUNS)/$@ RECIPE=recipes/$@.yaml DATA=$(call passed,$(DATA)) \
		STAGES="teacher student" TEACH="--save-logits $(RUNS)/$@/teacher.logits"

ean ean_two_cores: install
	@$(MAKE) --no-print-directory chain RUN=$(RUNS)/$@ RECIPE=recipes/$@.yaml DATA=$(call passed,$(DATA)) \
		STAGES="teacher student pruned" SENSITIVITY=

dynamic_mbv3: install
	@$(MAKE) --no-print-directory chain RUN=$(RUNS)/$@ RECIPE=recipes/$@.yaml DATA=$(call passed,$(DATA)) SENSITIVITY=

# Taught by a network of models/.
dynamic_mbv3_two_cores: install
	@$(MAKE) --no-print-directory chain RUN=$(RUNS)/$@ RECIPE=recipes/$@.yaml DATA=$(call passed,$(DATA)) SENSITIVITY= \
		TEACHER=models/nano_resnet.150.pt STAGES="student pruned int8"

prj_hawqc prj_hawqc_two_cores: install
	@$(MAKE) --no-print-directory chain RUN=$(RUNS)/$@ RECIPE=recipes/$@.yaml DATA=$(call passed,$(DATA)) \
		STAGES="teacher pruned mixed" PRUNED_OF=teacher

best: install
	@$(MAKE) --no-print-directory chain RUN=$(RUNS)/$@ RECIPE=recipes/$@.yaml DATA=$(call passed,$(DATA)) \
		STAGES="teacher student int8" INT8_OF=student TEACH="--save-logits $(RUNS)/$@/teacher.logits"

robust: install
	@$(MAKE) --no-print-directory chain RUN=$(RUNS)/$@ RECIPE=recipes/$@.yaml DATA=$(call passed,$(DATA)) \
		$(SHIPPED) STUDENT_FROM=$(SHIPPED_STUDENT)

tiny: install
	@$(MAKE) --no-print-directory chain RUN=$(RUNS)/$@ RECIPE=recipes/$@.yaml DATA=$(call passed,$(DATA)) \
		$(SHIPPED) STUDENT_FROM=$(RUNS)/$@/start.pt

# Both start from a network of models/, which teaches them beside the recorded teacher.
SHIPPED_STUDENT := models/nano_resnet.150.pt
SHIPPED = TEACHER=$(RUNS)/$@/teachers.logits STAGES="student int8 mixed" INT8_OF=student MIXED="--average-bits 3"

# The chain of the seven commands; RUN, RECIPE and DATA choose where, how and on what, STAGES how far it goes.
RUN ?= $(RUNS)/two_cores
RECIPE ?= recipes/two_cores.yaml
STAGES ?= teacher student pruned int8
# Who teaches, what the student starts from, what is pruned, what becomes integers, and what else distill and the
# quantization to mixed bits are told.
TEACHER ?= $(RUN)/teacher.pt
STUDENT_FROM ?=
PRUNED_OF ?= student
INT8_OF ?= pruned
TEACH ?=
MIXED ?=
ONNX = $(STAGES:%=$(RUN)/%.onnx)
SENSITIVITY = $(if $(filter pruned,$(STAGES)),$(RUN)/sensitivity.json)
WITH = --data $(call quoted,$(DATA)) --recipe $(RECIPE)

chain: $(RUN)/bench.json $(RUN)/eval.json $(RUN)/report.html

$(RUN)/teacher.pt: $(RECIPE)
	$(FERTOOL) train-teacher -o $@ $(WITH)

$(RUN)/own.logits: $(SHIPPED_STUDENT)
	$(FERTOOL) distill $< --epochs 0 --save-logits $@ --logit-views 2 $(WITH)

$(RUN)/teachers.logits: models/teacher.logits $(RUN)/own.logits
	$(FERTOOL) distill $^ --epochs 0 --save-logits $@ --data $(call quoted,$(DATA))

$(RUN)/start.pt: $(SHIPPED_STUDENT)
	$(FERTOOL) prune $< -o $@ $(WITH)

$(RUN)/student.pt: $(TEACHER) $(STUDENT_FROM)
	$(FERTOOL) distill $< -o $@ $(if $(STUDENT_FROM),--init-from $(STUDENT_FROM)) $(TEACH) $(WITH)

$(RUN)/pruned.pt: $(RUN)/$(PRUNED_OF).pt
	$(FERTOOL) prune $< -o $@ $(WITH)

$(RUN)/sensitivity.json: $(RUN)/$(INT8_OF).pt
	$(FERTOOL) hessian-sensitivity $< -o $@ $(WITH)

$(RUN)/int8.pt: $(RUN)/$(INT8_OF).pt
	$(FERTOOL) quantize $< -o $@ $(WITH)

$(RUN)/mixed.pt: $(RUN)/$(INT8_OF).pt $(RUN)/sensitivity.json
	$(FERTOOL) quantize $< -o $@ --sensitivity $(RUN)/sensitivity.json $(MIXED) $(WITH)

$(RUN)/%.onnx: $(RUN)/%.pt
	$(FERTOOL) export $< -o $@ $(WITH)

$(RUN)/eval.json: $(ONNX)
	$(FERTOOL) eval $^ -o $@ $(WITH)

# Last, so that its table is the last thing to be read.
$(RUN)/bench.json: $(ONNX) | $(SENSITIVITY) $(RUN)/eval.json
	$(FERTOOL) bench $^ -o $@ $(WITH)

$(RUN)/report.html: $(RUN)/bench.json $(RUN)/eval.json $(SENSITIVITY)
	$(FERTOOL) report $(STAGES:%=$(RUN)/%.pt) $^ -o $@

test: install
	FERTOOL_OLDEST_RUNTIME=$(abspath $(wildcard $(OLDEST)/bin/python)) \
	FERTOOL_ARM_RUNTIME=$(abspath $(wildcard $(ARM)/python)) \
	FERTOOL_ORT_WEB=$(abspath $(wildcard $(WEB_RUNTIME))) $(BIN)/python -m pytest -n auto --dist loadfile --max-worker-restart 0

# A second environment with the oldest ONNX Runtime that files have to run in; with it `make test` tests that too.
oldest-runtime: $(OLDEST)/.installed

$(OLDEST)/.installed:
	$(PYTHON) -m venv $(OLDEST)
	$(OLDEST)/bin/python -m pip install --quiet --disable-pip-version-check 'onnxruntime==1.17.3' 'numpy<2'
	touch $@

# ONNX Runtime for ARM under QEMU, from Debian packages, in a folder; with it `make test` compares the logits there too.
arm-runtime: $(ARM)/python

$(ARM)/python: | $(BIN)/.installed
	rm -rf $(ARM)
	$(BIN)/python tests/exporting/make_arm_runtime.py $(ARM)

# What `fertool app` puts into its pages; with it, and a Chromium on the path, `make test` drives a page too.
web-runtime: $(WEB_RUNTIME) $(BIN)/.installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[browser]'

$(WEB_RUNTIME):
	mkdir -p $(@D)
	cd $(@D) && npm pack --silent onnxruntime-web@1.30.0

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: install
	$(BIN)/mypy
	$(BIN)/mypy --config-file tests/mypy.ini

results: install
	$(BIN)/python docs/make_results.py > docs/results.md
	$(BIN)/python docs/make_networks.py > docs/networks.md
	$(BIN)/python docs/make_formats.py > docs/targets/table.md

docs: install
	$(BIN)/python docs/make_cli.py
	$(BIN)/python docs/make_operators.py > docs/operators.md
	$(BIN)/python docs/make_api.py > docs/api.md

# Runs the notebooks, and keeps what they print in them.
notebooks: install
	$(BIN)/python docs/notebooks.py

# Strict: a broken link or a page outside of the navigation is an error.
site: install
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet

check: lint types site test

bench: install
	$(BIN)/python benchmarks/int8.py -o $(RUNS)/int8_speed.json
	$(BIN)/python benchmarks/prune_speed.py --size 48,96 --latency 0.55 -o $(RUNS)/prune_speed.json
	$(BIN)/python benchmarks/prune_time.py -o $(RUNS)/prune_time.json
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt --no-deps pyhessian
	$(BIN)/python benchmarks/hessian.py -o $(RUNS)/hessian.json
	$(BIN)/python benchmarks/training.py -o $(RUNS)/training.json
	$(BIN)/python benchmarks/big_data.py -o $(RUNS)/big_data.json
	$(BIN)/python benchmarks/kills.py -o $(RUNS)/kills.json
	$(BIN)/python benchmarks/logits.py -o $(RUNS)/logits.json

clean:
	rm -rf $(VENV) $(OLDEST) $(ARM) $(dir $(WEB_RUNTIME)) $(RUNS) build site *.egg-info .mypy_cache .ruff_cache .pytest_cache
