module plugins/conformance

go 1.24

require skylark v0.0.0

replace skylark => ../../sdk-go
