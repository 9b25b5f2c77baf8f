from ml_platform.cli import main

main()
