#!/usr/bin/env python
"""Train one run, or many with Hydra's multirun:

python scripts/train.py paper=nsl head=nsl split.num_unseen=2 seed=0
python scripts/train.py -m paper=nsl split.num_unseen=2,3,4,5 head=nsl,triplet seed=0,1,2
"""

from hypersphere.app import main

if __name__ == "__main__":
    main()
