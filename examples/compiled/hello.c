#include <stdio.h>
#include <sys/utsname.h>

int main(int argc, char **argv) {
    struct utsname machine;
    uname(&machine);
    printf("hello, %s, from a %s image of one file\n", argc > 1 ? argv[1] : "nobody", machine.machine);
    return 0;
}
