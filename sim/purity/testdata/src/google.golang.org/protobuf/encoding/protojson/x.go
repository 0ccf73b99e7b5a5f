package protojson
