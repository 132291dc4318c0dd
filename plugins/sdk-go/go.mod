module skylark

go 1.24
