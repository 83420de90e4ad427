"""What is protected and measured: datasets, classifiers, training, evaluation, core types and errors."""
