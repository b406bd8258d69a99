module spiffe-operator.io/dev/devcluster

go 1.26.0
