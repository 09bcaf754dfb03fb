// A web server for a directory, as Go's standard library has it: ranges, ETags only where asked for, TLS.
package main

import (
	"flag"
	"log"
	"net/http"
	"strings"
)

func main() {
	address := flag.String("address", "", "HOST:PORT")
	directory := flag.String("directory", "", "what is served")
	certificate := flag.String("certificate", "", "PEM file; without it there is no TLS")
	key := flag.String("key", "", "PEM file")
	wanted := flag.String("want", "", "a header NAME: VALUE without which nothing is served")
	flag.Parse()
	files := http.FileServer(http.Dir(*directory))
	handler := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		name, value, _ := strings.Cut(*wanted, ": ")
		if *wanted != "" && r.Header.Get(name) != value {
			http.Error(w, "who are you?", http.StatusUnauthorized)
			return
		}
		files.ServeHTTP(w, r)
	})
	if *certificate != "" {
		log.Fatal(http.ListenAndServeTLS(*address, *certificate, *key, handler))
	}
	log.Fatal(http.ListenAndServe(*address, handler))
}
