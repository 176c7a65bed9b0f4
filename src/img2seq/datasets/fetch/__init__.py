"""`img2seq data fetch`: known data sets, fetched from their hosts, verified and unpacked."""
