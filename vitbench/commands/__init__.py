"""What `vitbench COMMAND` can do beside training: each module has a `main(argv) -> int`."""

# Each module (or a package's __main__, so that importing the package stays cheap) has a
# `main(argv) -> int` and a `build_parser()`; the words say what it is for.
COMMANDS = {
    "sweep": ("vitbench.sweep", "run the sweep of a YAML file; tables and figures"),
    "analysis": ("vitbench.analysis.__main__", "draw the report of a results folder again"),
    "new": ("vitbench.commands.new", "write a commented sweep file to start from"),
    "ls": ("vitbench.commands.ls", "list runs: state, best trial, folder"),
    "watch": ("vitbench.commands.watch", "a sweep in the browser, live while it runs"),
    "compare": ("vitbench.commands.compare", "several results folders in one view"),
    "attention": ("vitbench.attention.__main__", "where the trained models look, scored"),
    "export": ("vitbench.commands.export", "copy results to MLflow, Weights & Biases or Trackio"),
    "check": (
        "vitbench.commands.check",
        "try a model of your own: contract, cost, speed, stacking",
    ),
    "bench": ("vitbench.bench.__main__", "measure this machine beside other libraries"),
    "completion": ("vitbench.commands.completion", "completion of these words by your shell"),
    "doctor": ("vitbench.commands.doctor", "check the installation, the hardware and the data"),
}
