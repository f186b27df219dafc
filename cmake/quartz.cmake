# quartz_folder(NAME LINKS folders... LIBS imported targets...): one static library per folder, linking only what the
# ladder (cmake/ladder.txt, docs/architecture.md) allows. Sources are globbed: a new file is a new part of its folder.
function(quartz_folder name)
  cmake_parse_arguments(A "" "" "LINKS;LIBS" ${ARGN})
  file(GLOB sources CONFIGURE_DEPENDS ${CMAKE_SOURCE_DIR}/${name}/*.c)
  add_library(qz_${name} STATIC ${sources})
  target_include_directories(qz_${name} PUBLIC ${CMAKE_SOURCE_DIR})
  target_compile_definitions(qz_${name} PUBLIC _GNU_SOURCE QZ_VERSION="${PROJECT_VERSION}")
  foreach(link ${A_LINKS})
    target_link_libraries(qz_${name} PUBLIC qz_${link})
  endforeach()
  target_link_libraries(qz_${name} PRIVATE ${A_LIBS} PUBLIC m)
endfunction()

# Every tests/<kind>/<folder>_<what>.c becomes the program test_<kind>_<folder>_<what>, linked with <folder> and what
# lies below it. The tests run from the source folder, so paths like demo/model work.
function(quartz_tests kind)
  file(GLOB sources CONFIGURE_DEPENDS ${CMAKE_SOURCE_DIR}/tests/${kind}/*.c)
  foreach(source ${sources})
    get_filename_component(name ${source} NAME_WE)
    string(REGEX REPLACE "_.*" "" folder ${name})
    set(test test_${kind}_${name})
    add_executable(${test} ${source})
    target_link_libraries(${test} PRIVATE qz_${folder} qz_testing)
    target_compile_options(${test} PRIVATE ${QZ_TEST_OPTIONS})
    add_test(NAME ${kind}/${name} COMMAND ${test} WORKING_DIRECTORY ${CMAKE_SOURCE_DIR})
    set_tests_properties(${kind}/${name} PROPERTIES TIMEOUT 600 LABELS ${kind})
  endforeach()
endfunction()
