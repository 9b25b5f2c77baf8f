CREATE DATABASE dagster OWNER ml_platform;
CREATE DATABASE mlflow OWNER ml_platform;
CREATE DATABASE feast OWNER ml_platform;
