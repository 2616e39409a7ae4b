#!/usr/bin/env bash
# Half the MACs at full width, whole, on one GPU: both networks are taught, then pruned by every method side by side.
#
#     pip install torch-pruning==1.6.1
#     bash benchmarks/pruners.sh fer2013.csv teacher.logits runs/wide [EPOCHS]
#
# On an H200 the two teachings of 40 epochs, at once, take two minutes and a half, and 30 rows of 2 epochs four more;
# there are 60, half of them at each of two learning rates.
set -euo pipefail
data=$1 teacher=$2 folder=$3 epochs=${4:-2}
mkdir -p "$folder"

rows() { # ARCH METHOD RATE
    python benchmarks/pruners.py "$folder/$1.pt" --data "$data" --methods "$2" --epochs "$epochs" --lr "$3" \
        --device cuda --threads 2 -o "$folder/$1.$2.$3.json" >"$folder/$1.$2.$3.log" 2>&1
}

compare() { # ARCH
    python -m fertool distill "$teacher" -o "$folder/$1.pt" --data "$data" --arch "$1" --temperature 4 --alpha 0.9 \
        --epochs 40 --batch-size 256 --optimizer sgd --lr 0.1 --lr-schedule onecycle --weight-decay 2e-4 \
        --ema-decay 0.998 --mixup 0.2 --patience 0 >"$folder/$1.log" 2>&1
    for rate in 5e-4 1e-3; do
        local jobs=()
        for method in fertool lamp taylor magnitude; do
            rows "$1" $method $rate &
            jobs+=($!)
        done
        for job in "${jobs[@]}"; do wait "$job"; done
        # All rows are there: this one puts them together.
        python benchmarks/pruners.py "$folder/$1.pt" --data "$data" --epochs "$epochs" --lr $rate --device cuda \
            --rows "$folder/$1".{fertool,lamp,taylor,magnitude}.$rate.json -o "$folder/pruners_$1.$rate.json"
    done
}

compare mobilenet_v2 &
first=$!
compare mobilenet_v3_large
wait $first
