/* Programs that run programs: the guest's own, scripts, and the host's. */
#define _GNU_SOURCE
#include <errno.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

static char *variables[] = {"A=1", "B=x=y", NULL};

static void run(const char *what, const char *path, char *const *arguments)
{
    pid_t child = fork();
    if (child == 0) {
        execve(path, arguments, variables);
        printf("%s\n", strerror(errno));
        _exit(99);
    }
    int status;
    waitpid(child, &status, 0);
    printf("%s: %d\n", what, WEXITSTATUS(status));
}

int main(int count, char **arguments)
{
    setvbuf(stdout, NULL, _IONBF, 0);
    if (count > 1 && !strcmp(arguments[1], "again")) {
        printf("again");
        for (int i = 2; i < count; i++)
            printf(" '%s'", strncmp(arguments[i], "/tmp/", 5) ? arguments[i] : "a script");
        printf(" A=%s B=%s\n", getenv("A"), getenv("B"));
        return 7;
    }
    char self[4096] = {0};
    readlink("/proc/self/exe", self, sizeof self - 1);
    run("executed", self, (char *[]){"the name", "again", "", "two words", NULL});
    run("by link", "/proc/self/exe", (char *[]){"the name", "again", NULL});
    pid_t spawned;
    int status;
    posix_spawn(&spawned, self, NULL, NULL, (char *[]){"the name", "again", "spawned", NULL}, variables);
    waitpid(spawned, &status, 0);
    printf("spawned: %d\n", WEXITSTATUS(status));

    char script[] = "/tmp/cairn-script-XXXXXX";
    int file = mkstemp(script);
    dprintf(file, "#! %s again \nnothing\n", self);
    fchmod(file, 0755);
    close(file);
    run("script", script, (char *[]){"name", "more", NULL});
    chmod(script, 0644);
    run("not executable", script, (char *[]){"name", NULL});
    unlink(script);
    run("the host's", "/bin/sh", (char *[]){"sh", "-c", "exit 5", NULL});
    return 0;
}
