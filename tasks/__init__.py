"""What is protected and measured: data sets, classifiers, training, evaluation, types, errors."""
