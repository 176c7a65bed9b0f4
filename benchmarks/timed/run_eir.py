"""Run EIR's trainer with time stamps around its own functions; nothing of it is changed. Runs in EIR's environment.

BENCHMARK_START=<time.time()> python run_eir.py EVENTS.json <arguments of eirtrain>
"""

import json
import os
import resource
import sys
import time

if __name__ == "__main__":  # its loader workers import this file again
    import eir.train
    from eir.train_utils import evaluation

    events_file = sys.argv.pop(1)
    events = {"start": float(os.environ["BENCHMARK_START"]), "steps": [], "evaluations": [], "samples": []}

    def timed(name, function):
        def run(*arguments, **options):
            begun = time.time()
            result = function(*arguments, **options)
            events[name].append([begun, time.time()])
            return result

        return run

    engine = eir.train.Engine
    eir.train.Engine = lambda process_function: engine(process_function=timed("steps", process_function))
    evaluation.run_split_evaluation = timed("evaluations", evaluation.run_split_evaluation)
    name = "sequence_out_single_sample_evaluation_wrapper"
    setattr(evaluation, name, timed("samples", getattr(evaluation, name)))
    eir.train.main()
    events["end"] = time.time()
    events["peak_bytes"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    with open(events_file, "w") as file:  # noqa: PTH123
        json.dump(events, file)
