"""MLflow's client without a server: `mlflow.set_tracking_uri("trimtab:///path/of/project")`.

Only `entry_points` may be loaded by others: the modules behind it load mlflow.
"""
